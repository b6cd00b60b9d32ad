"""How much a stack needs: ten thousand runs one after the other, a thousand at once, and everything that fills buffers together.

Each tool drives a real ``runyard up``, prints what each process used, and ends with an error when a promise does not hold.
"""
