"""Separations of skies that are larger than memory, from files to files.

`separate_blocks` is the door, and `results` what it writes. `sky_files` reads a block, `cuts` says where one may end, and
`global_fit` fits what is the same in all of them.
"""
