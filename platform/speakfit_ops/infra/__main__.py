"""`python -m speakfit_ops.infra`."""

from speakfit_ops.infra.cli import main

if __name__ == "__main__":
    main()
