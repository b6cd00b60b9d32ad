"""One suite for every engine: what each must do is written once, what differs is a row of data with its reason.

``cases`` is the body, ``engines`` the rows, ``ground`` the real executor it runs through, ``invariants`` what holds after every
case, ``recorded`` the same judgement over recordings. Nothing here may branch on an engine's name.
"""
