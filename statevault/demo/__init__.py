"""``statevault demo``: an agent learns, saves itself, is killed in the middle of a save, and goes on.

Three parts: a learner (a small DQN on CartPole), a worker process that runs it through ``launch``, and a director that
starts workers, kills one, and tells what happens.
"""
