# Runs what a key for mail and tracking may run, whatever the client asks for. Arguments: the texts of recorder.sh, recorder.pl,
# records.sh and mail_question.sh; host and port of the mail server, "sendmail" or "none"; a command that lists the queue, or
# nothing; a command that speaks SMTP, or nothing. Of the command of the client, only the words at its end are looked at.
LC_ALL=C; export LC_ALL;
set -f;
r=$1 p=$2 s=$3 q=$4 host=$5 port=$6 without=$7 list=$8 smtp=$9;
asked=$SSH_ORIGINAL_COMMAND;
unset SSH_ORIGINAL_COMMAND;
case $asked in
  *" mailrelay "*) ;;
  *) [ -n "$smtp" ] && exec sh -c "$smtp"; exit 1;;
esac;
before=${asked%" mailrelay "*};
set -- ${asked##*" mailrelay "};
act=$1;
[ $# -gt 0 ] && [ $# -le MAX_WORDS ] || exit 1;
shift;
token() { case $1 in NAMES) ;; *) exit 1;; esac; };
helo=;
[ "$act" = record ] && [ $# = 2 ] && { helo=$2; [ -z "$(printf %s "$helo" | tr -d 0-9a-f)" ] || exit 1; set -- "$1"; };
for t; do token "$t"; done;
case $act in
  ask) [ $# = 0 ] && exec sh -c "$q" sh mailrelay ask "$list";;
  record) [ $# = 1 ] && exec sh -c "$r" sh "$p" "$host" "$port" "$without" mailrelay record "$1" "$helo";;
  read|remove) mark=${before##* }; token "$mark"; exec sh -c "$s" sh "$mark" mailrelay "$act" "$@";;
esac;
exit 1
