"""What a search proposes next, from the results of the trials that it has proposed before."""
