"""Prints the scale of the policy clock; run by the worker's main process, which loads no gRPC."""

from __future__ import annotations

import sys

from speakfit.errors import SpeakFitError
from speakfit.settings import read_settings
from speakfit.target import policy_clock, resolve_target

if __name__ == "__main__":
    try:
        print(policy_clock(resolve_target(read_settings())).scale)
    except SpeakFitError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
