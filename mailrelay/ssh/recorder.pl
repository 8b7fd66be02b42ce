# The recorder: carries octets between stdin/stdout and the mail server, and writes what the mail server says into a file.
# Arguments: host, port, token, and the argument of EHLO in hexadecimal digits, or nothing. With it, EHLO is sent as soon as the
# mail server has greeted: the round trip for it is saved. Sent as one argument of a command line: see `recorder.py` for the characters that are allowed.
# The file has a line with two process ids (itself, and the process that TERM ends), the octets of the mail server, and, once
# the mail server has closed its side, a line END with the token.
use Socket qw(:DEFAULT getaddrinfo);
use Fcntl;
use Errno qw(EAGAIN EINTR);
# Another name for the error variable, whose own is a history substitution in csh.
BEGIN { *e = chr 33 }
($host, $port, $token, $helo) = @ARGV;
$0 = "mailrelay recorder $token";
$SIG{HUP} = $SIG{PIPE} = "IGNORE";
$nl = chr 10;
$ehlo = length $helo ? "EHLO " . pack("H*", $helo) . chr(13) . $nl : "";
sub refuse { syswrite STDOUT, "$nl$_[0] $token $_[1]$nl"; exit 1 }
# The directory and the file. The directory that counts is the one that we are in: a name may change.
umask 077;
chdir or refuse "unrecorded", "the home directory: $e";
$dir = ".cache/mailrelay";
mkdir ".cache"; mkdir $dir;
refuse "unrecorded", "$dir is a symbolic link" if -l $dir;
chdir $dir or refuse "unrecorded", "$dir: $e";
refuse "unrecorded", "$dir belongs to another account" unless -o ".";
chmod 0700, ".";
sysopen F, $token, O_WRONLY|O_CREAT|O_EXCL, 0600 or refuse "unrecorded", "a file in $dir: $e";
$header = join(" ", $$, $$) . $nl;
unless ((syswrite(F, $header) || 0) == length $header) { $why = $e; unlink $token; refuse "unrecorded", "a file in $dir: $why" }
# The connection.
$SIG{ALRM} = sub { unlink $token; refuse "unreached", "no reply" };
alarm 15;
($why, @found) = getaddrinfo $host, $port, {socktype => SOCK_STREAM};
for (@found) {
  if (socket(S, $_->{family}, $_->{socktype}, $_->{protocol}) and connect S, $_->{addr}) { $up = 1; last }
  $why = $e;
}
alarm 0;
$SIG{ALRM} = "DEFAULT";
unless ($up) { unlink $token; refuse "unreached", $why }
fcntl $_, F_SETFL, O_NONBLOCK | fcntl $_, F_GETFL, 0 for *S, *STDOUT;
# in: from stdin, for the mail server. out: from the mail server, for stdout.
$in = "";
$out = "${nl}recorded $token" . (length $ehlo ? " ehlo" : "") . $nl;
$limit = 1 << 18;
# TERM: no more octets of the client for the mail server, which then closes; nobody reads stdout any more.
$SIG{TERM} = sub { $deaf = $mute = 1; $in = $out = ""; shutdown S, 1; alarm 3600 };
sub record {
  return if $bad;
  $size += length $_[0];
  $bad = 1 unless $size <= MAX_RECORD and (syswrite(F, $_[0]) || 0) == length $_[0];
}
sub greeted {
  $greeting .= $_[0];
  while ($greeting =~ s/^([^$nl]*)$nl//) {
    $line = $1;
    next if $line =~ /^\d\d\d-/;
    $in = $ehlo . $in if $line =~ /^220/ and not $deaf;
    $ehlo = "";
    return;
  }
}
sub passing { $e == EAGAIN or $e == EINTR }
until ($over and not length $out) {
  ($r, $w) = ("", "");
  $full = length $out >= $limit;
  vec($r, fileno S, 1) = 1 unless $over or $full;
  vec($r, 0, 1) = 1 unless $over or $deaf or length $in >= $limit;
  vec($w, fileno S, 1) = 1 if length $in and not $over;
  vec($w, 1, 1) = 1 if length $out;
  # TERM may come just before the select, which then must not wait for stdout.
  next if select($r, $w, undef, $full || $over ? 1 : undef) < 1;
  if (vec $r, fileno S, 1) {
    $n = sysread S, $b, 65536;
    if ($n) { record $b; $out .= $b unless $mute; greeted $b if length $ehlo }
    elsif (defined $n) { record "${nl}END $token$nl"; $over = 1 }
    # The end of the connection is not that of the mail server: no END.
    elsif (not passing) { $bad = $over = 1 }
  }
  if (vec $r, 0, 1 and not $deaf) {
    $n = sysread STDIN, $b, 65536;
    if ($n) { $in .= $b }
    elsif (defined $n or not passing) { $deaf = $closing = 1 }
  }
  if (length $in and not $over) {
    $n = syswrite S, $in;
    if (defined $n) { substr $in, 0, $n, "" }
    elsif (not passing) { $in = ""; $deaf = 1 }
  }
  if ($closing and not length $in) { $closing = 0; shutdown S, 1; alarm 3600 }
  if (length $out) {
    $n = syswrite STDOUT, $out;
    if (defined $n) { substr $out, 0, $n, "" }
    elsif (not passing) { $out = ""; $mute = 1 }
  }
}
