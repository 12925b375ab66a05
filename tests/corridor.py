"""A world for the tests, after ssl-formats(5): six places in a row; the goal is at one of the ends.

`python corridor.py [WORD]`: WORD is what goes wrong: die, blind, huge or words.
"""

import json
import sys

wrong = (*sys.argv[1:], "nothing")[0]
for steps, line in enumerate(sys.stdin, 1):
    word, number = line.split()
    if word == "reset":
        at, goal, walked = 1 + int(number) % 4, 5 * (int(number) // 8 % 2), 0
    else:
        at, walked = min(5, max(0, at + (1 if int(number) else -1))), walked + 1
    reply = {"shape": [12, 16, 3], "reward": 1.0 if at == goal else -0.125}
    reply |= {"terminated": at == goal, "success": at == goal}
    reply |= {"distance_to_goal": abs(goal - at), "path_length": walked}
    reply |= {"actions": ["back", "on"], "expert": None if wrong == "blind" else int(goal > at)}
    if wrong == "die" and steps == 2:
        sys.exit("the light went out")
    if wrong == "huge" and steps == 2:
        reply["shape"] = [1 << 20, 1 << 20, 3]
    data = json.dumps(reply).encode() if wrong != "words" or steps < 2 else b"ready!"
    frame = b"".join(bytes([200 if x // 3 == at else 20, 40 * at, 20 * goal]) for x in range(16))
    sys.stdout.buffer.write(data + b"\n" + frame * 12)
    sys.stdout.flush()
