"""What real mail servers have written about mail to ok1 (taken), grey1 (451) and bad1 (550) at a next server whose replies
hold words such as "stat=Sent (…)" and "status=sent"."""

from pathlib import Path

SAMPLES = Path(__file__).parent.parent / "samples/tracking"
IDS = {
    "sendmail": ("6ASAlPhe000224", "6ASAlQFs000271", "6ASAlU6m000370"),
    "postfix": ("6076427E9A1", "7070627E955", "6663027E9A4", "7CB7527E979"),
    "exim": ("1xXG0k-000024-2n", "1xXG0l-00002p-0j", "1xXG0p-00004R-1t", "1xXG0l-00003Y-1y"),
    "opensmtpd": ("14970b17", "a1ab94d4"),
}
"""The queue ids of our messages; the first is that to ok1, grey1 and bad1."""


def sample(name: str) -> bytes:
    return (SAMPLES / name).read_bytes()
