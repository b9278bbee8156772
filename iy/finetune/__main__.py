"""`python -m iy.finetune --stage 1`: train one of the four stages (studio profile on 2 CPU cores: minutes)."""

from iy.finetune.launch import launched
from iy.stage import main

if __name__ == "__main__":
    main("finetune", launched, **{"--stage": ["1", "2", "3", "4"]})
