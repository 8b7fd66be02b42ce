# Answers a question about mail that the mail server here has accepted. Writes nothing. Arguments: "mailrelay", "ask", and with
# a key for mail and tracking: the command that lists the queue, or "". Then stdin names none, and nothing is tried again.
# Lines on stdin: a mark; queue ids; marks of our messages; ids to try again; a command that lists the queue, or nothing;
# since when (epoch seconds); the places in the log and in the mailbox where the last answer ended.
# The ids come in arguments only where a program takes them in no other way.
read -r m && read -r ids && read -r marks && read -r again && IFS= read -r run && read -r since && read -r kind at from && read -r start seen || exit 1;
exec </dev/null;
LC_ALL=C; export LC_ALL;
PATH=$PATH:/usr/sbin:/sbin:/usr/local/sbin;
set -f;
say() { printf "\n%s %s\n" "$m" "$*"; };
has() { command -v "$1" >/dev/null 2>&1; };
each() { [ $# = 0 ] || printf "%s\n" "$@"; };
# Arithmetic and options must not become code: a stolen key sends other data than mailrelay.
numbers() { each "$@" | grep -x "[0-9]\{1,15\}" || echo 0; };
safe() { each "$@" | grep -x "[0-9A-Za-z][0-9A-Za-z.-]*" | tr "\n" " "; };
ids=$(safe $ids); again=$(safe $again);
since=$(numbers "$since"); start=$(numbers "$start"); seen=$(numbers "$seen"); from=$(numbers "$from");
[ $# = 2 ] || { run=$3; again=; };
user=$(id -un); now=$(date +%s);
say begin;
say account "$user";
say now "$now";
minutes() { n=$(( (now - $1) / 60 + 2 )); [ $n -gt 1 ] || n=99999999; echo $n; };
recent=$(minutes "$since");

# The queue comes first: a report of a message that has left it is in the mailbox by then.
exim=exim4; has exim4 || exim=exim;
if [ -n "$run" ]; then server=other;
elif has postqueue; then server=postfix;
elif has $exim; then server=exim;
elif has smtpctl; then server=opensmtpd;
elif has sendmail; then server=sendmail;
else server=none; fi;
say server $server;
# A program that hangs must not hide what the log and the mailbox say.
limit=; has timeout && limit="timeout LIST_SECONDS";
sendmails() { for i in $ids; do set -- "$@" "-qI$i"; done; $limit sendmail "$@" -bp -v; };
# The queue of mail that was handed to sendmail by a command; it may be closed to the account.
submitted() {
  [ -r /etc/mail/submit.cf ] || return 0;
  set -- "$(sendmails -Ac 2>/dev/null)";
  case $1 in *permitted*) ;; *"Total requests: "*) printf "%s\n" "$1";; esac;
};
exims() { for i in $ids; do case $i in ??????-??????*-??*) set -- "$@" "$i";; esac; done; [ $# = 0 ] || $limit $exim -bp "$@"; };
list() {
  case $server in
    other) $limit sh -c "$run";;
    postfix) $limit postqueue -j;;
    exim) exims;;
    opensmtpd) $limit smtpctl show queue;;
    sendmail) sendmails && submitted;;
  esac 2>&1;
  say listed $?;
};
ours() { { each $ids; echo; cat; } | awk "
  n == 0 { if (\$0 == \"\") n = 1; else want[\$0]; next }
  substr(\$0, 1, 1) == \"{\" {
    if (match(\$0, /\"queue_id\": *\"[^\"]*\"/) == 0) next;
    id = substr(\$0, RSTART, RLENGTH - 1); sub(/.*\"/, \"\", id);
    if (id in want) print;
    next
  }
  { print }"; };
if [ -n "$ids" ]; then
  case $server in
    none) ;;
    postfix) say queue; list | ours;;
    *) say queue; list;;
  esac;
fi;

# The log: a file that was written since, else the journal. It is read from a little before the place on, from the next
# beginning of a line: the last line may have been half written.
written() { [ -f "$1" ] && [ -r "$1" ] && [ -n "$(find -L "$1" -mmin "-$recent" 2>/dev/null)" ]; };
inode() { set -- $(ls -iL "$1" 2>/dev/null); echo "$1"; };
size() { set -- $(ls -nL "$1" 2>/dev/null); echo "$5"; };
part() { if [ "$2" -gt 0 ]; then tail -c "+$2" "$1" | tail -n +2; else cat "$1"; fi; };
mail_logs="/var/log/mail.log /var/log/maillog /var/log/mail";
exim_logs="/var/log/exim4/mainlog /var/log/exim/main.log /var/log/exim/mainlog";
case $server in exim) logs="$exim_logs $mail_logs";; *) logs="$mail_logs $exim_logs";; esac;
log=; readable=; cursor=;
for f in $logs; do
  [ -z "$readable" ] && [ -f $f ] && [ -r $f ] && readable=$f;
  written $f && { log=$f; break; };
done;
journal() { journalctl -q --no-pager --system -o short-unix "$@" SYSLOG_FACILITY=2 2>/dev/null; };
[ -n "$log" ] || { has journalctl && cursor=$(journal -n 1 --show-cursor | sed -n "s/^-- cursor: //p"); };
[ -n "$log$cursor" ] || log=$readable;
read_log() {
  if [ -n "$cursor" ]; then
    if [ "$kind" = journal ]; then journal --after-cursor "$at"; else journal --since "@$since"; fi;
    return;
  fi;
  old=$log.1; [ -f "$old" ] || old=$log.0;
  if [ "$kind" = file ] && [ "$at" = "$file" ] && [ "$octets" -ge "$from" ]; then
    part "$log" "$from";
  else
    if [ "$kind" = file ] && { [ "$at" = "$file" ] || [ "$at" = "$(inode "$old")" ]; }; then part "$old" "$from";
    elif written "$old"; then cat "$old"; fi;
    cat "$log";
  fi 2>/dev/null;
};
# A shorter id is in too many lines.
long=$(each $ids | grep "......" | tr "\n" " ");
with_ids() {
  each $long | {
    if [ -r /dev/fd/3 ]; then read_log 3<&- | grep -a -F -f /dev/fd/3;
    else read_log | grep -a -F "$(each $long)"; fi;
  } 3<&0;
};
if [ -n "$log$cursor" ]; then
  place=none;
  if [ -n "$cursor" ]; then place="journal $cursor"; else
    file=$(inode "$log"); octets=$(size "$log");
    place="file $file $(( octets > 16384 ? octets - 16384 : 0 ))";
  fi;
  say log;
  [ -z "$long" ] || with_ids;
  say logged "$place";
fi;

# The mailbox: an mbox from its last message on, or new files of a Maildir. An mbox that was not made yet is empty.
box=; dir=; empty=;
for f in "$MAIL" "/var/mail/$user" "/var/spool/mail/$user"; do
  [ -n "$f" ] || continue;
  if [ -d "$f/new" ]; then dir=$f; break; fi;
  if [ -f "$f" ] && [ -r "$f" ]; then box=$f; break; fi;
  [ -e "$f" ] || { [ -d "${f%/*}" ] && [ -x "${f%/*}" ] && empty=yes; };
done;
[ -z "$dir" ] && [ -r "$HOME/Maildir/new" ] && dir=$HOME/Maildir;
# A plain read would change the time of the last access, by which mail readers find new mail.
if dd if="$box" iflag=noatime,skip_bytes count=0 status=none 2>/dev/null;
then box_from() { dd if="$box" iflag=noatime,skip_bytes skip="$1" bs=64k status=none 2>/dev/null; };
else box_from() { tail -c "+$(( $1 + 1 ))" "$box" 2>/dev/null; }; fi;
files() {
  find "$dir/new" "$dir/cur" -type f -mmin "-$(if [ "$seen" -gt 0 ]; then minutes "$seen"; else echo "$recent"; fi)" -exec grep -l -i -a -F multipart/report {} + 2>/dev/null |
  while IFS= read -r f; do echo "From x"; head -c MAX_REPORT "$f" | sed "s/^From />&/"; echo; done;
};
reports() { { echo "$m"; each $marks; echo; cat; } | awk -v at="$1" "
  function out() { if (is && hit) for (i = 0; i < n; i++) print line[i] }
  NR == 1 { m = \$0; next }
  data == 0 { if (\$0 == \"\") data = 1; else want[\$0]; next }
  /^From / { out(); last = at; begun = head = 1; is = hit = n = octets = 0 }
  { at += length(\$0) + 1 }
  begun == 0 { next }
  head && /^\r?\$/ { head = 0 }
  head && tolower(\$0) ~ /multipart\/report/ { is = 1 }
  head || is { octets += length(\$0) + 1; if (octets <= MAX_REPORT) line[n++] = \$0; else next }
  is && head == 0 {
    for (i = 1; i <= NF; i++) if (\$i in want) hit = 1;
    gsub(/[<>\r]/, \" \");
    for (i = 1; i <= NF; i++) if (\$i in want) hit = 1
  }
  END { out(); printf \"\n%s last %.0f\n\", m, last }"; };
if [ -n "$box$dir$empty" ]; then
  say mailbox;
  [ -z "$dir" ] || files | reports 0;
  if [ -n "$box" ]; then
    octets=$(size "$box");
    { [ "$start" -lt "$octets" ] && box_from "$start" | head -n 1 | grep -q "^From "; } || start=0;
    [ $(( octets - start )) -le MAX_MAILBOX ] || start=$(( octets - MAX_MAILBOX ));
    box_from "$start" | reports "$start";
  else say last 0; fi;
  say read;
  [ -s "$HOME/.forward" ] && say forwarded;
fi;

if [ -n "$again" ] && [ -z "$run" ] && has postqueue; then
  say retry;
  s=0; for i in $again; do postqueue -i "$i" 2>&1 || s=$?; done;
  say retried $s;
fi;
say answered
