"""What outputs achieved: verdicts, instructions rewritten by them, the replay buffer."""
