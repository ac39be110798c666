"""How GPAW's extension is built (``GPAW_CONFIG``): serial, as C, with Debian's libxc, OpenBLAS and FFTW."""

compiler = "gcc"
mpi = False
noblas = False
nolibxc = False
fftw = True
libraries = ["xc", "openblas", "fftw3"]
