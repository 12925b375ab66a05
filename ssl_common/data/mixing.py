"""A hash of 64-bit whole numbers, from which random draws by key are made."""

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 by the golden ratio: the step between two numbers


def mix(z: np.ndarray) -> np.ndarray:
    """Return uint64 Z mixed by the finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).

    Z is an array, not a scalar, of which numpy would tell each overflow. mix is one to one:

        z = (z xor z >> 30) * 0xbf58476d1ce4e5b9
        z = (z xor z >> 27) * 0x94d049bb133111eb
        z =  z xor z >> 31
    """
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
