"""The two-photon recordings of Stringer, Pachitariu and colleagues: spontaneous activity of mouse V1."""
