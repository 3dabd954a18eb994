# A scikit-learn model, asked about every input of train.npz.
mtbkd teach --adapter python --model my_teacher.py:forest --name forest --data train.npz --out outputs/forest

# A table that somebody sent, with a row for each example in any order.
head -n 3 scores.csv
mtbkd import-teacher scores.csv --name sent --outputs 'prob_*' --class-names cat dog eel --kind probabilities \
  --out outputs/sent
