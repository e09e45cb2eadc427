# (rooms add targets of their own in make/*.mk)
