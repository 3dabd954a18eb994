mtbkd fit --data train.npz --teachers west=west.npz east=east.npz --out runs/small --student.hidden 16 \
  --draws moments --probes test.npz --resume \
  --settings.power 0.1 --settings.concentration 5 --settings.center-scale 0.5 --settings.wide-scale 1 \
  --settings.temperature 1 --settings.prediction-temperature 1 \
  --sampling.num-mode-steps 300 --sampling.num-burn-in 500 --sampling.num-draws 50 --sampling.thinning 20 > /dev/null

mtbkd status runs/small
du -sk runs/mine/draws runs/small/draws
python -c "import numpy as np; p = np.load('runs/small/prediction.npz'); print({n: p[n].shape for n in p.files})"
