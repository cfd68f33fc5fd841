"""What holds for all tests."""

import signal

from hypothesis import settings

# Timing decides no test: a machine that does other things besides takes several times as long.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Where tests run in the background, shells have Ctrl-C ignored, and all that tests start would ignore it, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
