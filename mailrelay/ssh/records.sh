# Ends recorders and prints their records, or removes records. Arguments: a mark, "mailrelay", "read" or "remove", tokens.
m=$1 act=$3;
shift 3;
echo; echo "$m begin";
cd "$HOME/.cache/mailrelay" 2>/dev/null && [ -O . ] || { echo "$m done"; exit; };
lives() {
  [ -f "$1" ] && [ -r "$1" ] && read -r p c <"$1" && [ "$p" -gt 1 ] 2>/dev/null && [ "$c" -gt 1 ] 2>/dev/null && [ "$p" -ne $$ ] || return 1;
  if [ -r /proc/self/cmdline ]; then grep -q "$1" "/proc/$p/cmdline" 2>/dev/null;
  else case $(ps -ww -o args= -p "$p" 2>/dev/null) in *"$1"*) ;; *) return 1;; esac; fi;
};
if [ "$act" = remove ]; then
  rm -f -- "$@";
  find . -type f -name "NAMES" -mtime +6 -exec rm -f {} +;
  echo "$m done"; exit;
fi;
for t; do lives "$t" && kill "$c"; done 2>/dev/null;
n=0;
for t; do
  while lives "$t" && [ $n -lt ROUNDS ]; do n=$((n+1)); sleep 0.1 2>/dev/null || { sleep 1; n=$((n+9)); }; done;
done;
for t; do
  [ -f "$t" ] && [ -r "$t" ] || continue;
  s=ended; lives "$t" && s=growing;
  echo "$m record $t"; cat "$t"; echo; echo "$m $s $t";
done;
echo "$m done"
