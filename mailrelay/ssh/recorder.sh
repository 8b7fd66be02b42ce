# Starts the recorder. Arguments: the recorder in perl, host, port, "sendmail" or "none", "mailrelay", "record", token, and the argument of
# EHLO in hexadecimal digits or nothing.
# Where there is no perl, "sendmail" allows a recorder that consists of cat, sendmail -bs and tee.
command -v perl >/dev/null 2>&1 && exec perl -e "$1" "$2" "$3" "$7" "$8";
t=$7;
fail() { echo; echo "unrecorded $t $*"; exit 1; };
[ "$4" = sendmail ] || fail "there is no perl";
PATH=$PATH:/usr/sbin:/usr/lib;
command -v sendmail >/dev/null 2>&1 || fail "there is neither perl nor sendmail";
for program in cat tee; do command -v $program >/dev/null 2>&1 || fail "there is no $program"; done;
umask 077; d=.cache/mailrelay;
cd || fail "no home directory";
mkdir -p $d 2>/dev/null;
[ -h $d ] && fail "$d is a symbolic link";
cd $d 2>/dev/null || fail "$d is not a directory that can be used";
[ -O . ] || fail "$d belongs to another account";
chmod 700 .;
set -C;
{ true >"$t"; } 2>/dev/null || fail "no file can be made in $d";
set +C;
trap "" PIPE HUP;
exec 4>&1;
echo; echo "recorded $t";
statuses=$( {
  sh -c "echo $$ \$\$; exec cat" 3>&- 4>&- |
  { read -r h; echo "$h" >>"$t" && sendmail -bs 3>&- 4>&-; echo "$?" >&3; kill "${h#* }"; } |
  { ulimit -f MAX_BLOCKS; trap "" XFSZ; tee -a "$t" 3>&- 4>&-; echo "tee$?" >&3; } |
  { cat >&4; cat >/dev/null; } 3>&- ;
} 3>&1 2>/dev/null );
set -- ${statuses};
[ "$2" = tee0 ] && [ "$1" -lt 128 ] && { echo; echo "END $t"; } >>"$t";
exit 0
