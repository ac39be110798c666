"""Reference methods that label new frames, each in an environment of its own, and a cache of what they gave."""
