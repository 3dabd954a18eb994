# Settings are given and chains are short only so that this page is built in a minute; leave these options out.
mtbkd fit --data train.npz --teachers west=west.npz east=east.npz --out runs/mine --student.hidden 16 \
  --settings.power 0.1 --settings.concentration 5 --settings.center-scale 0.5 --settings.wide-scale 1 \
  --settings.temperature 1 --settings.prediction-temperature 1 \
  --sampling.num-mode-steps 300 --sampling.num-burn-in 500 --sampling.num-draws 50 --sampling.thinning 20

mtbkd predict runs/mine --inputs test.npz --output prediction.npz
python -c "import numpy as np; p = np.load('prediction.npz'); print({name: p[name].shape for name in p.files})"

mtbkd evaluate runs/mine --data test.npz
