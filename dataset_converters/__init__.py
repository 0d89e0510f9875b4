"""Converters of raw data sets to RecBole's atomic files; they import nothing of recbole_molar."""
