"""What the translators of other tools' files share."""
