#!/usr/bin/env bash
# Everything that ships, made on one GPU in about ten minutes, parts that do not need each other side by side:
#   bash foundation/side_by_side.sh OUT [options of python -m foundation]
# Renders are made first, where there is a processor for it: python -m foundation --only base people held
# Killed, it goes on from each part's last checkpoint. LIMIT scales the seconds that parts may take.
set -u
out=$1; shift
limit=${LIMIT:-1}
python=${PYTHON:-python3}
seconds() { "$python" -c "print(*(f'{part}={float(value) * $limit:g}' for part, value in (one.split('=') for one in '$*'.split())))"; }
make() { local log=$1; shift; "$python" -m foundation --out "$out" "$@" >"$out/$log.log" 2>&1 || echo "$log failed, see $out/$log.log"; }
mkdir -p "$out"
# shellcheck disable=SC2046
{
  make t5 --only t5 "$@" --seconds $(seconds t5=45) &
  make byt5 --only byt5 "$@" --seconds $(seconds byt5=55) &
  make clip --only clip "$@" --seconds $(seconds clip_text=25 clip=60) &
  make vae --only vae "$@" --seconds $(seconds vae=165)
  wait
  echo "autoencoder and encoders: $SECONDS s"
  make probes --only probes "$@" --seconds $(seconds probes=45) &
  make identity --only identity "$@" --seconds $(seconds identity=30) &
  make unet --only unet "$@" --seconds $(seconds unet=175)
  wait
  echo "U-Net: $SECONDS s"
  make publish --only foundation judges "$@"
  echo "published: $SECONDS s"
  make pretrained --only pretrained "$@" --seconds $(seconds pretrained=120)
  echo "all: $SECONDS s"
}
