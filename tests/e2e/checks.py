"""What the end-to-end tests of one file each say of what they found."""

import sys


def check(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")
    print("ok:", what)
