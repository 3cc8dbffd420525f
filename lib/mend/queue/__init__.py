"""Who waits behind whom, what is in the way, how it is ended, and how that looks."""
