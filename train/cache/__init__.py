"""Transfer values: computed once, cached on disk, fed to training."""
