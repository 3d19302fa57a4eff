"""What images meet in the world: noise, blur, weather and compression, at five severities."""
