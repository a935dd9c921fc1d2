"""What is linear in the maps of channels: combinations of them, and their spherical harmonics.

`ilc` combines by regions of pixels; `harmonic` transforms, and combines or fits coefficients; `needlets` combines
by scales and places; `resolution` brings channels to one beam. Their doors are those of the room.
"""
