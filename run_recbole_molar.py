"""Train and evaluate Molar or any RecBole sequential model: `python run_recbole_molar.py --model=Molar --dataset=ml-100k`."""

import sys

from recbole_molar.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
