"""What a run holds in memory, whatever it keeps on the disk."""

from benchmarks.memory import measure


def test_memory_does_not_grow_with_the_number_of_draws(tmp_path):
    # 20,024 parameters: the draws of the longer run have 240 MB, and would be held more than once to predict from them.
    few, many = (
        measure(tmp_path, num_draws, "--sampling.num-chains", "1", hidden=141)["peak_megabytes"]
        for num_draws in (100, 3000)
    )
    assert many < few + 200
