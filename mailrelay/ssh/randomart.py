"""OpenSSH's picture of a key's fingerprint ("randomart"): people see at a glance whether two of them differ.

A bishop starts in the middle of the board and moves one square diagonally for every two bits of the fingerprint, lowest bits
first. The character of a square shows how often it was visited. Pure.
"""

COLUMNS, ROWS = 17, 9
_BY_VISITS = " .o+=*BOX@%&#/^"
_START, _END = "S", "E"


def draw(digest: bytes, title: str, footer: str) -> str:
    """The picture of a digest: eleven lines. title, footer: texts in the frame, as `ED25519 256` and `SHA256`."""
    visits = [[0] * COLUMNS for _ in range(ROWS)]
    start = x, y = COLUMNS // 2, ROWS // 2
    for octet in digest:
        for shift in (0, 2, 4, 6):
            step = octet >> shift
            # At a wall the bishop slides along it.
            x = min(max(x + (1 if step & 1 else -1), 0), COLUMNS - 1)
            y = min(max(y + (1 if step & 2 else -1), 0), ROWS - 1)
            visits[y][x] += 1
    board = [[_BY_VISITS[min(count, len(_BY_VISITS) - 1)] for count in row] for row in visits]
    board[start[1]][start[0]] = _START
    board[y][x] = _END
    return "\n".join((_edge(title), *(f"|{''.join(row)}|" for row in board), _edge(footer)))


def _edge(text: str) -> str:
    framed = f"[{text}]"
    left = (COLUMNS - len(framed)) // 2
    return f"+{'-' * left}{framed}{'-' * (COLUMNS - left - len(framed))}+"
