"""From frames to g2 and two-time maps: correlators, the sums that they end in, and the door that feeds them from files.

`correlate` is what a user calls; `multitau`, `events` and `twotime` are correlators that can be fed by hand, `sums` and
`covariance` what is made of their results.
"""
