"""``python -m tenfold``, and the command: Ctrl-C is clean from the first import on."""

import sys


def main() -> None:
    try:
        from tenfold.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("tenfold: interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
