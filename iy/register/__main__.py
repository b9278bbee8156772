"""`python -m iy.register`: register models/<profile>/finetune4 in MLflow (about 15 s)."""

from iy.stage import main

if __name__ == "__main__":
    main("register")
