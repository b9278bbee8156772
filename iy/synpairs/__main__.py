from iy import stage
from iy.synpairs.run import run

if __name__ == "__main__":
    stage.main("synpairs", run)
