"""Which of many items come first, compiled: NumPy would put all of them in order."""

import numba
import numpy as np

_LOW = np.int64(0x7FFFFFFF)


@numba.njit(cache=True, nogil=True)
def largest(values, most):  # type: ignore[no-untyped-def]  # numba infers it
    """Places of the largest of values (n,) of 32 bits, at most so many: largest first, of equals the first place."""
    if most == 0:
        return np.empty(0, np.int64)
    bits, count, bound = values.view(np.int32), 0, np.iinfo(np.int64).min
    keys = np.empty(min(len(values), 2 * most), np.int64)  # in the order of the values, then of the places
    for place in range(len(values)):
        high = np.int64(bits[place])
        high ^= (high >> np.int64(63)) & _LOW  # numbers below 0 are in the opposite order of their bits
        key = (high << np.int64(32)) | (_LOW - place)
        if key < bound:
            continue
        keys[count] = key
        count += 1
        if count == 2 * most:
            bound, count = np.partition(keys, most)[most], 0
            for key in keys:
                if key >= bound:
                    keys[count] = key
                    count += 1
    return _LOW - (np.sort(keys[:count])[::-1][:most] & _LOW)
