"""The program `irlhf`, and `python -m irlhf`, with which launchers such as torchrun start it."""

import sys


def main() -> None:
    """Run the command line. An interrupt while it is imported is one line, as any later one."""
    try:
        from irlhf.cli.app import main as run
    except KeyboardInterrupt:
        sys.stderr.write("irlhf: stopped; the same command resumes\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
