"""Transfer values: computed once, kept, fed."""
