"""python visualize.py traversal --outfile traversal.png

Show what a model has learned. KIND is one of

  traversal        rows: latent dimensions, most used first; columns: that one from -3 to 3 (.gif: a film)
  interpolate      from one test image to another, straight and along the sphere (.gif: a film)
  manifold         the plane of the two most used dimensions, in equal shares of the prior
  latents          the codes of the test images as points, coloured by class
  samples          a sheet of samples, of a class-conditional model a row of each class
  reconstructions  test images, their reconstructions, and what differs
  curves           loss, reconstruction, KL and throughput over the epochs of one or more runs
  report           all of it and the figures of evaluate.py in one HTML file
"""

from pathlib import Path

import cli

KINDS = ("traversal", "interpolate", "manifold", "latents", "samples", "reconstructions", "curves", "report")
FILMS = ("traversal", "interpolate")


def parse(argv):
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("kind", metavar="KIND", choices=KINDS, help="what to show, see above")
    cli.add_model_flags(parser)
    add("--outfile", type=cli.name, metavar="FILE", help="the picture, or the page (default: KIND.png, report.html)")
    add(
        "--image",
        type=cli.number(int, 0),
        metavar="N",
        help="traversal: around this test image's code, not the prior's",
    )
    add("--rows", type=cli.count, metavar="N", help="traversal: dimensions; interpolate: pairs; manifold: side")
    add("--nsamples", type=cli.count, metavar="N", help="samples (128) or reconstructions (24)")
    add(
        "--temperature",
        type=cli.number(float, 0, 1000),
        default=1.0,
        metavar="X",
        help="samples: how wide codes are drawn",
    )
    add("--label", type=cli.name, metavar="CLASS", help="class-conditional models: this class only")
    add("--logs", nargs="+", metavar="RUN", help="curves: runs' folders or logs (default: the model's own)")
    add(
        "--importance_samples",
        type=cli.number(int, 0, 10**7),
        default=50,
        metavar="K",
        help="report: as in evaluate.py",
    )
    add("--seed", type=cli.seed, default=0, metavar="N", help="the number that all chance comes from")
    cli.add_data_flags(parser)
    cli.add_device_flags(parser)
    args = parser.parse(argv)
    args.outfile = args.outfile or ("report.html" if args.kind == "report" else f"{args.kind}.png")
    return args


@cli.command
def main(argv=None):
    args = parse(argv)
    import images

    cli.check_file(args.outfile)
    ending = Path(args.outfile).suffix.lower()
    if args.kind == "report":
        if ending not in (".html", ".htm"):
            raise cli.UserError(f"{args.outfile} ends in {ending or 'nothing'} — a report is an .html file")
    else:
        images.check_name(args.outfile)
    if args.kind == "curves" and args.logs:
        import visualization

        images.save(args.outfile, visualization.curves(args.logs))
    else:
        show(args, film=ending == ".gif" and args.kind in FILMS)
    print(f"{args.kind.capitalize()}: {args.outfile}")


def show(args, film):
    """Make what is asked for of a model and write it."""
    model, facts, device_name = cli.open_model(args)
    import images
    import visualization
    from files import write

    dataset = cli.data_of(args, facts)
    subject = visualization.Subject(
        model, facts, lambda split: cli.load_for(args, model, facts, split), args.seed, args.label
    )
    own_log = cli.model_path(args).with_suffix("")
    if args.kind == "report":
        import report

        page = report.make(subject, args, dataset, device_name, own_log if own_log.is_dir() else None)
        write(args.outfile, page.encode(errors="replace"))
        return
    if film:
        make = {"traversal": lambda: visualization.traversal_film(subject, args.image, args.rows)}
        make["interpolate"] = lambda: visualization.interpolate_film(subject, args.rows)
        images.save_film(args.outfile, make[args.kind]())
        return
    make = {
        "traversal": lambda: visualization.traversal_page(subject, args.image, args.rows),
        "interpolate": lambda: visualization.interpolate_page(subject, args.rows),
        "manifold": lambda: visualization.manifold(subject, args.rows),
        "latents": lambda: visualization.latents(subject),
        "samples": lambda: visualization.samples(subject, args.nsamples, args.temperature),
        "reconstructions": lambda: visualization.reconstructions(subject, args.nsamples),
        "curves": lambda: visualization.curves([own_log]),
    }
    images.save(args.outfile, make[args.kind]())


if __name__ == "__main__":
    main()
