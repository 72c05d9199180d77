"""`python -m alerts`."""

from alerts.cli import main

if __name__ == "__main__":
    main()
