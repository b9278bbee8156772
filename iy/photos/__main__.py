from iy import stage
from iy.photos.run import run

if __name__ == "__main__":
    stage.main("photos", run)
