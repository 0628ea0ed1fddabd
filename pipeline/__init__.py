"""From raw archives to trained models and the conclusions drawn from them."""

import os

# Threads of OpenMP that wait for one another spin, by default long enough to take the cores from a
# thread that the system has not scheduled: beside other programs, a training then becomes many
# times slower. It is set here because OpenMP reads it when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
