"""A run spread over workers by Dask. Only this package imports Dask, which the extra `cluster` brings.

places.py                dispatch.py                          worker.py
where the workers are    the client: tasks, losses, counts    one task: the streaming pipeline
"""
