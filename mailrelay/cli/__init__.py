"""The command line: parses, asks, prints. One module for each command; only the module of the running command is loaded.

    command_line.py   `main`: the table of commands, and the exit status of every error
    base.py           what every command uses: settings, `Failed`, commands that are loaded when they run
    lazy.py, late.py  late imports of what some runs of a command need
    terminal.py       lines in the width of the terminal, colour, times
    wrapping.py       wraps text by words
    questions.py      questions to the person

No application logic: what a command does to the queue and sees of it is in `control`; the other commands have packages of
their own (`check`, `setup`, `demo`, `ssh`, `daemon`).
"""
