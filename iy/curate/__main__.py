from iy import stage
from iy.curate.run import run

if __name__ == "__main__":
    stage.main("curate", run)
