"""The part that runs inside a guest; standard library only, Python 3.9 and newer, uses nothing of ours."""
