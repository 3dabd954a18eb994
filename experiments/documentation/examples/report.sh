mtbkd report runs/mine --data test.npz --out report.html
