mtbkd status runs/mine
