from iy import stage
from iy.evaluate.run import run

if __name__ == "__main__":
    stage.main("evaluate", run)
